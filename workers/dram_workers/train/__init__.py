"""The train stage: DeepSpeed under torchrun, watched by `dram_workers.supervisor`.

`loop` is the training itself, `run` what a rank has for it, `stage` what comes before and after.
"""
