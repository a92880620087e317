"""The parts of scripts/compare and scripts/compare-containers.

`peers` finds the programs to compare with, `subjects` makes the trees and images that are mounted, `systems` mounts them,
`cases` are kinds of measurements, `rows` says which there are and what they must reach, `figures` keeps what came out,
`report` and `chart` show it. For containers there are `engines`, which start them, `lives`, the kinds of measurements,
`timed`, by which a command is timed as the user, and `life_rows`, which says what is measured. `pulls` is what scripts/compare-lazy and
scripts/compare-pull share.
"""
