"""Compress stages: TrainedModel -> TrainedModel, pure Keras 3, so that any Keras backend trains them.

A stage is called with a model and answers with a ``StageResult``; ``stage.run_stage`` checks what it
requires and what it ensures. All stages train with one loop (``train.train``). These modules import Keras
when they are imported: import them inside functions, after ``frameworks.load_frameworks``.
"""
