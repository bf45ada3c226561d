"""Model files and texts -> logits, on a CPU or a GPU.

Takes an ONNX file, a tokenizer and the device that was asked for, and gives model outputs.
"""
