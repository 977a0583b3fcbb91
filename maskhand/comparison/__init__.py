"""Trainings and evaluations beside each other: what was set differently, and which hands came out differently."""
