"""What a model costs and what its parts see; works on any module by hooks."""
