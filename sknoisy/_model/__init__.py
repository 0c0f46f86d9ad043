"""The model: p(y|x), p(z|y,x) and their loss, in torch."""
