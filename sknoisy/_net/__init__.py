"""The skorch net: one stage of training; the only room that knows skorch."""
