"""Catalogue of the attention modules, made from their cards."""

from attn import modules


def rows() -> list[dict[str, str]]:
    """One row an attention: name, family, input, formula, cost, records, paper."""
    table = []
    for name in modules.names():
        card = modules.card(name)
        paper = card.paper
        table.append(
            {
                "name": name,
                "family": card.family,
                "input": card.contract,
                "formula": card.formula,
                "multiply-adds": card.complexity,
                "records": ", ".join(card.maps),
                "variants": ", ".join(card.variants),
                "paper": f"{paper.authors.split(',')[0]} et al. {paper.year}",
                "link": paper.link,
            }
        )
    return table


def markdown() -> str:
    """The table for a README."""
    lines = [
        "| name | family | input | what it computes | multiply-adds | paper |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows():
        paper = f"[{row['paper']}]({row['link']})"
        cells = [
            f"`{row['name']}`",
            row["family"],
            row["input"],
            f"`{_escaped(row['formula'])}`",
            f"`{_escaped(row['multiply-adds'])}`",
            paper,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
