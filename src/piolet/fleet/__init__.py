"""The operators' centre: gathers evidence on nodes, decides by rules, plans under limits, drains and gives back.

evidence   what was observed          ledger    the append-only, hash-chained record
rules      when evidence matters      state     the fold of the ledger
policy     rules, limits as a file    deciding  evidence -> firings and transitions (pure)
store      the ledger in SQLite       planning  wishes -> actions within limits (pure)
gathering  logbooks and Slurm         applying  the only part that changes Slurm
views      what people read now       history   what they read of the past
verdicts   what nodes read           center    all of it, in the order of one turn
"""
