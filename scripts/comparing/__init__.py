"""The parts of scripts/compare.

`peers` finds the programs to compare with, `subjects` makes the trees and images that are mounted, `systems` mounts them,
`cases` are kinds of measurements, `rows` says which there are and what they must reach, `figures` keeps what came out,
`report` and `chart` show it.
"""
