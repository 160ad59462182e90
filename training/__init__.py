"""Training. `objective` has the losses, `trainer` the step and its state; `run` feeds it batches and keeps what comes out.

rate, replicas ─▶ objective ─▶ trainer ◀─ schedule, knob_roles     (the losses; what one step updates; checkpoints)
data, devices, distribution ─▶ run ─▶ folders      (checkpoints, summaries and sample pictures)
run ─▶ fit_entropy ─▶ context_network              (after the last step: the context model that codes the symbols)
"""
