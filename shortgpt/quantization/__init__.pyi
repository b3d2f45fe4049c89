from .methods import is_quantized as is_quantized, quantize as quantize
