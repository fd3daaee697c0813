"""From images to files of embeddings, on this machine or on a cluster."""
