"""Times the encoding of training splits beside reading them back (`train.cache_tokens`), in seconds of the CPU.

Each is done several times in turn, and the shortest time is taken. The cache is a new folder that is deleted at the
end. With `--command` a whole `ptv2kit run … --dry-run`-free start is not timed: that is the run's own business.
"""
