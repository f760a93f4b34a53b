"""What a sweep or an ablation leaves behind: its paths, its trials' records, the parent's record."""
