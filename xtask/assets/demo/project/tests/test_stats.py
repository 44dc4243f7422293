import unittest

from stats import mean, median, spread


class Stats(unittest.TestCase):
    def test_mean(self):
        self.assertEqual(mean([1, 2, 6]), 3)

    def test_median_of_an_odd_count(self):
        self.assertEqual(median([5, 1, 3]), 3)

    def test_median_of_an_even_count(self):
        self.assertEqual(median([9, 1, 3, 5]), 4)

    def test_spread(self):
        self.assertEqual(spread([4, -1, 2]), 5)
