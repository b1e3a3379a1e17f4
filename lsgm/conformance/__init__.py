"""Parity with reference vectors, stage by stage."""
