"""Mean, median and spread of a list of numbers."""


def mean(numbers):
    return sum(numbers) / len(numbers)


def median(numbers):
    ordered = sorted(numbers)
    middle = len(ordered) // 2
    if len(ordered) % 2 == 1:
        return ordered[middle]
    return (ordered[middle + 1] + ordered[middle]) / 2


def spread(numbers):
    return max(numbers) - min(numbers)
