"""Rank-1, mAP, mINP, re-ranking and thresholds from features and labels."""
