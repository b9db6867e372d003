"""Models that predict the graph's missing facts, what trains them and what measures them."""
