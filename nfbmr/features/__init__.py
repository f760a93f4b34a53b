"""Pictures to stored tensors: the frozen backbone, its weights, and the content-addressed store."""
