"""A scenario of half a second in which cheating hurts unless somebody minds."""

BESIEGED = """
version: 1
name: besieged
seed: 1
stop: {rounds: 6}
model: {kind: gpt, layers: 1, width: 16, heads: 1, context: 32}
training: {batch: 4}
protocol: {kind: sparseloco, inner_steps: 8, k: 256}
deployment: {preset: same, inner_step: 1 s, evaluation: 0.1 s}
timeline: {block: 1 s, blocks_per_window: 40, put_window: 10 s, gather_timeout: 15 s}
peers: 6
cohorts:
  honest: {share: rest}
  flippers: {count: 2, behavior: {kind: sign_flip, scale: 2}}
validators: {lead: {stake: 1}}
selection: all
aggregate: {clip: none}
gauntlet: {evaluated_per_window: 6, own_sequences: 2, random_sequences: 2}
chain: {tempo: 40}
data: {held_out_sequences: 8}
record: {level: summary}
"""
