"""The blocks that an exported script is put together from, as source code that knows diffusers alone."""

from __future__ import annotations

LEVELS = '''
class Levels(FlowMatchEulerDiscreteScheduler):
    """Walks the noise levels of a stage as they are: no shift, no 0 at the end."""

    init_noise_sigma = 1.0

    def __init__(self, stage{made}):
        super().__init__()
        self.stage = stage
{keep}
    def set_timesteps(self, num_inference_steps=None, device=None, sigmas=None, mu=None, timesteps=None):
        self.sigmas = torch.tensor(self.stage["sigmas"], device=device)
        self.timesteps = {timesteps}
        self.done = 0

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        sigma, following = self.sigmas[self.done], self.sigmas[self.done + 1]
        velocity, x = {velocity}, sample.float()
{corrected}        self.done += 1
        return ((x + (following - sigma) * velocity).to(model_output.dtype),)
'''

KEEP = """        self.made = made  # the clean latent and the noise that every call of the stage predicted
"""

CORRECTED = """        self.made.append((x - sigma * velocity, x + (1 - sigma) * velocity))
        for back, clean, noise in self.stage.get("corrections", {}).get(self.done, []):
            before, now = self.made[-1 - back], self.made[-1]
            x = x + clean * (before[0] - now[0]) + noise * (before[1] - now[1])
"""

SCALED_INPUT = '''
    def scale_model_input(self, sample, timestep):
        return sample / self.norm()

    def norm(self):
        sigma = self.sigmas[self.done]
        return torch.hypot(1 - sigma, sigma)

    def velocity(self, predicted, x):
        """Turns what the network predicts into the direction from the image to the noise."""
        z, image_part = x / self.norm(), self.stage["signals"][self.done]
        noise_part = (1 - image_part**2) ** 0.5
        image = {image}
        return (x - image) / self.sigmas[self.done]
'''

PREDICTED_IMAGE = {
    "epsilon": "(z - noise_part * predicted) / image_part",
    "v_prediction": "image_part * z - noise_part * predicted",
    "sample": "predicted",
}

PACK = '''
def pack(x):
    """Makes tokens of patches of 2 x 2 latent pixels: (B, C, h, w) -> (B, h/2 * w/2, 4C)."""
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpack(tokens, h, w):
    """Undoes pack."""
    b, _, c = tokens.shape
    return tokens.reshape(b, h // 2, w // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, h, w)
'''

RESIZE = '''
def resize(x, size, kernel):
    """Brings latents to the next stage's size."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
'''

RESIZE_VIDEO = """    if x.ndim == 5:
        return resize(x.flatten(1, 2), size, kernel).reshape(*x.shape[:3], *size)
"""

RESIZE_LANCZOS = """    rows, columns = (lanczos(*sides).to(x) for sides in zip(x.shape[-2:], size))
    return rows @ x @ columns.T
"""

RESIZE_KERNELS = """    if kernel in ("bilinear", "bicubic"):
        return torch.nn.functional.interpolate(x, size=size, mode=kernel, antialias=True)
    mode = {"nearest": "nearest-exact", "torch-bicubic": "bicubic"}.get(kernel, kernel)
    return torch.nn.functional.interpolate(x, size=size, mode=mode)
"""

LANCZOS = '''
def lanczos(source, target):
    """Builds the (target, source) matrix of Lanczos-3 resampling, widened where it shrinks."""
    ratio = source / target
    centers = (torch.arange(target, dtype=torch.float64) + 0.5) * ratio - 0.5
    distance = (torch.arange(source, dtype=torch.float64) - centers[:, None]) / max(ratio, 1.0)
    kernel = torch.sinc(distance) * torch.sinc(distance / 3) * (distance.abs() < 3)
    return kernel / kernel.sum(dim=1, keepdim=True)
'''

DCT = '''
def cosines(side):
    """Builds the orthonormal matrix of the cosine transform of type II."""
    places = torch.arange(side, dtype=torch.float64)
    matrix = torch.cos(math.pi / side * (places + 0.5) * places[:, None]) * math.sqrt(2 / side)
    matrix[0] /= math.sqrt(2)
    return matrix


def expand(x, noise, level, ratio):
    """Enlarges a noisy latent by its cosine spectrum; the new frequencies are noise of its level."""
    height, width = x.shape[-2:]
    rows, columns = (cosines(side).to(x) for side in noise.shape[-2:])
    spectrum = level * (rows @ noise @ columns.T)
    spectrum[..., :height, :width] = cosines(height).to(x) @ x @ cosines(width).to(x).T
    return ratio / (1 + (ratio - 1) * level) * (rows.T @ spectrum @ columns)
'''

PIXEL = '''
def by_pixels(pipe, x, height, width):
    """Brings a clean latent to another size by way of its image."""
    vae, images = pipe.vae, pipe.image_processor
    with torch.no_grad():
        shift = vae.config.get("shift_factor") or 0.0
        scaled = x / vae.config.scaling_factor + shift
        image = images.postprocess(vae.decode(scaled.to(vae.dtype), return_dict=False)[0], output_type="pil")[0]
        pixels = images.preprocess(image.resize((width, height), Image.Resampling.LANCZOS))
        found = vae.encode(pixels.to(vae.device, vae.dtype))
    latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
    return (latents.float() - shift) * vae.config.scaling_factor
'''

STAGE_SEED = '''
def stage_seed(seed, number):
    """Returns the seed of a stage's noise: the image's own at first, a hash of both after it."""
    if number == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:8], "big") >> 11
'''

LORA = '''
def load_lora(pipe):
    """Adds the LoRA that the preset was made for, in diffusers' or in PEFT's format."""
    path, config = Path(LORA), "adapter_config.json"
    if (path / config).is_file() if path.exists() else file_exists(LORA, config):
        folder = path if path.exists() else Path(snapshot_download(LORA))
        weights = load_file(folder / "adapter_model.safetensors")
        pipe.{denoiser}.load_lora_adapter(
            {{name.removeprefix("base_model.model."): value for name, value in weights.items()}},
            prefix=None,
            adapter_name="preset",
            metadata=LoraConfig.from_pretrained(str(folder)).to_dict(),
        )
    elif path.is_file():
        pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="preset")
    else:
        pipe.load_lora_weights(LORA, adapter_name="preset")
    pipe.set_adapters(["preset"], [LORA_WEIGHT])
'''

GENERATE = '''
def generate(pipe, prompt, seed=0, output_type="pil"):
    """Runs every stage in a call of its own and returns what the pipeline returns for the last one."""
    stock, x, level = pipe.scheduler, None, 1.0
    try:
        for number, stage in enumerate(STAGES):
            generator = torch.Generator("cpu").manual_seed({seed})
            noise = torch.randn(stage["noise"], generator=generator, dtype={dtype})
            noise = {drawn}.to(pipe._execution_device, torch.float32)
            if x is None:
                x = {start}noise
{transition}{remembered}            pipe.scheduler = Levels(stage{made})
{before}            result = pipe(
                prompt=prompt,
                height=stage["height"],
                width=stage["width"],
                num_inference_steps=len(stage["sigmas"]) - 1,
                latents={to_pipe},
                output_type=output_type if stage is STAGES[-1] else "latent",
                **{arguments},
            )
{after}            if stage is not STAGES[-1]:
                x, level = {from_pipe}.float(), stage["sigmas"][-1]
        return result
    finally:
        pipe.scheduler = stock
'''

REMEMBERED = """            if not stage.get("continues"):
                made = []
"""

TRANSITION = """            else:
                keep = (1 - stage["sigmas"][0]) / (1 - level)
                fresh = (stage["sigmas"][0] ** 2 - (keep * level) ** 2) ** 0.5
                x = keep * {resized} + fresh * noise
"""

EXPANSION = """            elif stage["resample"] == "dct":
                x = expand(x, noise, level, stage["scale"] / STAGES[number - 1]["scale"])
"""

MAIN = """
if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompt", nargs="?", default={prompt})
    parser.add_argument("--seed", type=int, default={seed})
    parser.add_argument("-o", "--output", default={output})
    chosen = parser.parse_args()
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    pipe = {pipeline}.from_pretrained(MODEL, torch_dtype=dtype).to(device)
{prepare}    made = generate(pipe, chosen.prompt, chosen.seed)
    {save}
"""
