"""Put the default model into the cache before the tests, which run with the network switched off."""

from shortgpt import load

if __name__ == "__main__":
    load(device="cpu")
    print("the default model is in the cache")
