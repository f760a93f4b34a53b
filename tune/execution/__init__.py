"""Trials being run, on Ray or in this process; who plans them is none of its business."""
