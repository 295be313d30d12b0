"""What the papers print, beside what this project measures.

reproduce.py calls ``methods`` (a data set's chain, a paper's table), ``studies``, ``seeds`` and
``summary``. They train through ``trained`` and score through ``commands``; ``figures`` draws with
``plots``. ``pages`` renders the Markdown pages: each of its blocks is a function that gives text,
out of ``results`` (test.py's files), ``published`` (CIFAR/published.json) and the code's records.
"""
