"""The training loop: phases, handlers, state, callbacks."""
