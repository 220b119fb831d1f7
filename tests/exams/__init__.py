"""Exams that other people set: their tests, run against this switch and against Open vSwitch."""
