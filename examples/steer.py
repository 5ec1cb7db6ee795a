"""Steer a model by hand: run `make demo` first, then `.venv/bin/python examples/steer.py`."""

from trimtab import Steering, open_model

model = open_model("testbed:reasoner")  # or any hub id or folder
steering = Steering.from_pretrained("runs/demo/steering")
chat = [{"role": "user", "content": "just dial 5 : a -9 b -2 c +1 d +7 e +2 and done ?"}]
inputs = model.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
with steering.attach(model.hf_model) as attachment:
    response = model.hf_model.generate(**inputs, max_new_tokens=110)
print(f"p(fail) = {attachment.probability}, strength in force = {attachment.coefficient}")
print(model.tokenizer.decode(response[0]))
