"""The score-function estimator: gradients through what is drawn, from rewards alone.

Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist
Reinforcement Learning" (REINFORCE), Machine Learning 8, 1992, theorem 1:

    grad E[R(a)] = E[(R(a) - b) grad log pi(a)]

for any baseline b that does not depend on the action a. The baselines are those of Xu
et al., "Show, Attend and Tell", 2015, https://arxiv.org/abs/1502.03044, equation 12,
of Mnih et al., "Recurrent Models of Visual Attention", 2014,
https://arxiv.org/abs/1406.6247, section 3.1, and of Kool, van Hoof, Welling, "Buy 4
REINFORCE Samples, Get a Baseline for Free!", 2019.

Letters: B examples, M draws for each of them.
"""

import jax
import jax.numpy as jnp


def score_function_loss(
    log_prob: jax.Array, reward: jax.Array, baseline: jax.Array | float = 0.0
) -> jax.Array:
    """A loss whose gradient estimates that of -E[reward]; its value means nothing.

    Reward and baseline count as constants, so that nothing but the distribution of the
    action learns by it.

    Args:
        log_prob: log pi(a) of the actions that were drawn.
        reward: of each of them, of the same shape or one that broadcasts to it.
        baseline: what is subtracted, likewise. It must not depend on the action of
            which `log_prob` is.

    Returns:
        -(reward - baseline) log_prob, of the shape of `log_prob`.

    Raises:
        ValueError: a reward or baseline that does not broadcast to that shape.
    """
    given = {"reward": reward, "baseline": baseline}
    for name, value in given.items():
        try:
            given[name] = jnp.broadcast_to(value, log_prob.shape)
        except ValueError:
            raise ValueError(
                f"{name} of shape {jnp.shape(value)} does not broadcast to that of"
                f" log_prob, {log_prob.shape}"
            ) from None
    advantage = jax.lax.stop_gradient(given["reward"] - given["baseline"])
    return -advantage * log_prob


def moving_average(
    baseline: jax.Array, reward: jax.Array, decay: float = 0.9
) -> jax.Array:
    """The next baseline b' = decay b + (1 - decay) mean(reward), a scalar.

    In Show, Attend and Tell the reward of a caption is log p(y | s, a), and the decay
    is 0.9. Of one batch the baseline must be the b from before it.
    """
    return decay * baseline + (1 - decay) * jax.lax.stop_gradient(jnp.mean(reward))


def baseline_loss(baseline: jax.Array, reward: jax.Array) -> jax.Array:
    """What a learnt baseline minimises: (reward - baseline)^2, elementwise.

    The reward counts as a constant. One number that plain gradient descent learns so
    at the rate (1 - decay) / 2 is `moving_average` with that decay.
    """
    return jnp.square(jax.lax.stop_gradient(reward) - baseline)


def leave_one_out(reward: jax.Array) -> jax.Array:
    """The mean reward of the other draws of the same example: [B, M] -> [B, M].

    It needs nothing learnt and tells easy examples from hard ones.

    Raises:
        ValueError: fewer than two draws.
    """
    draws = reward.shape[-1]
    if draws < 2:
        raise ValueError(f"leave_one_out needs at least 2 draws, got {draws}")
    return (jnp.sum(reward, axis=-1, keepdims=True) - reward) / (draws - 1)
