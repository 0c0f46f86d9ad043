"""How a network is learned: the stages, EM, streams, and the choice of the noise model."""
