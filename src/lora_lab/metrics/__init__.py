"""What an image resembles: encoders of images and texts, and the scores made of their vectors.

`encoders` and `face` turn pictures and texts into vectors of length 1, `store` keeps them by
content, `scores` are pure functions of vectors.
"""
