"""The training loop: phases, handlers, state, objectives, callbacks, progress."""
