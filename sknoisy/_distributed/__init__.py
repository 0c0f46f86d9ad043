"""One fit in several processes of a group of ``torch.distributed``."""
