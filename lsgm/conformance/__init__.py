"""Parity with reference vectors, stage by stage: what a golden folder holds, and what becomes of it here."""
