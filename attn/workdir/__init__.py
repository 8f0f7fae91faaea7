"""Work directories: the record of a sweep and of each of its points, on disk.

SWEEP/experiment.json      title, axes, baseline, the names of the points
SWEEP/match.json           widths by which points cost the same, if that was asked for
SWEEP/tune.json            what each row tried and what was chosen, if asked for
SWEEP/trials/              the trials, a sweep of their own
SWEEP/.leases/             who trains what, see attn.workdir.leases
SWEEP/tracking.json        the key of its report in tracking services, by --log_to
SWEEP/POINT/tracking.json  and of the point's run there
SWEEP/.workers/K.log       what worker K of --workers=N said
SWEEP/.workers/token       of a directory that was submitted, see attn.workdir.token
SWEEP/.blocks/             blocks of attention by shape, by --blocks=measured
SWEEP/POINT/config.json    everything that decides the training
SWEEP/POINT/environment.json   versions, machine, code, for each time it was started
SWEEP/POINT/tokenizer.json     of its data, if they are text
SWEEP/POINT/vocabulary.json    the words of its data, if they are captions
SWEEP/POINT/data.json      notes on such data: versions, what was left out
SWEEP/POINT/metrics.jsonl  what was learnt; the same bytes however often killed
SWEEP/POINT/speed.jsonl    how fast
SWEEP/POINT/checkpoints/   the state, last and best; in an object store STEP.tar
SWEEP/POINT/outcomes.npz   what each test example counts, by metric
SWEEP/POINT/attention.npz  attention maps of the trained model
SWEEP/POINT/snapshots/STEP.npz  the same on the way, small, by train.snapshot_every
SWEEP/POINT/gates.npz      its mean gates by class, if it has gates of channels
SWEEP/POINT/examples.npz   examples with what the model makes of them, if it has such
SWEEP/POINT/query_areas.npz    boxes of the object queries of a detector
SWEEP/POINT/predictions.*  what it found in pictures, if it was asked
SWEEP/POINT/diverged.json  why it is not trained any further, if it diverged
SWEEP/POINT/result.json    written last: a point that has it is done; the time that
                           points took together is divided among them
"""
