"""Training. `trainer` has the step and the state that it changes; `run` feeds it batches and keeps what comes out.

model ─▶ trainer ◀─ rate, schedule, transfer         (what one step updates; checkpoints)
data, devices, distribution ─▶ run ─▶ folders        (checkpoints, summaries and sample pictures)
run ─▶ fit_entropy                                   (after the last step: the context model that codes the symbols)
"""
