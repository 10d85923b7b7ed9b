from skal import analysis as analysis
from skal import annotate as annotate
from skal import datasets as datasets
from skal import experiment as experiment
from skal import loop as loop
from skal import models as models
from skal import plotting as plotting
from skal import pool as pool
from skal import posterior as posterior
from skal import query as query
from skal import report as report
from skal import selection as selection
from skal import testing as testing
from skal import utils as utils
from skal._version import __version__ as __version__
from skal.loop import ActiveLearningLoop as ActiveLearningLoop
from skal.pool import PoolView as PoolView
from skal.query import *
