"""How a network is learned; the only room that knows skorch."""
