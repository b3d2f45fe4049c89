import pandas as pd


def answers(k):
    return pd.DataFrame()
