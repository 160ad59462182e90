"""Training. `trainer` holds losses, optimizers and the step; `run` feeds it batches and keeps what comes out.

config, knob_roles ─▶ trainer ◀─ schedule          (what one step does, and the state that resuming needs)
data, devices, distribution ─▶ run ─▶ folders      (checkpoints, summaries and sample pictures)
run ─▶ fit_entropy ─▶ context_network              (after the last step: the context model that codes the symbols)
"""
