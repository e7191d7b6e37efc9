"""How meta-parameters move: estimators of their gradient, and the trainers that use them.

Whatever a candidate's meta-parameters are (a program's constants, a schedule's knots, a learned
optimizer's weights), this room finds better ones: by evolution strategies (ES, PES, NRES), by
metagradients through training, and by hypergradients. It may import `veldt.tasks` and
`veldt.learned_opt`.
"""
