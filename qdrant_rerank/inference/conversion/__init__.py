"""An ONNX file -> the file that runs fast here.

Takes a published model file, and gives a converted copy in the cache: int8, fp16, fused attention.
"""
