"""What reranking buys and costs, measured on your own queries and judgments."""
