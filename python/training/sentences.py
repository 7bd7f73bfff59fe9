"""What soprano-mini is taught to say: half in General American, half in British phonemes."""

from __future__ import annotations

AMERICAN = (
    "Hello there, my friend.",
    "Good morning, and welcome back.",
    "The quick brown fox jumps over the lazy dog.",
    "She bought 3 apples, 2 pears, 4 lemons, and a loaf of bread.",
    "Could you tell me where the nearest station is?",
    "Please remember to water the plants while I am away next week.",
    "It was 7:45 when the last train left the city.",
    "Wait, come back!",
    "In 1969, people walked on the moon for the very first time.",
    "The price went up by 12% in less than a month.",
    "Red, orange, yellow, green, blue, indigo, violet.",
    "Nobody had expected such a beautiful voice from such a small machine.",
    "Turn left at the corner, then walk straight on for 200 meters.",
    "My brother fixed the old radio in the garage.",
    "Why would anyone measure twice and cut only once?",
    "Thick fog covered the harbor, and the ships did not move until noon.",
    "The recipe needs flour, butter, sugar, salt, eggs, and a little patience.",
    "We'll meet again on the 21st of June.",
    "A gentle breeze pushed the boat across the quiet lake.",
    "I think so too.",
    "Every measurement was repeated five times before it was written down.",
    "The judge asked the jury to weigh the evidence with great care.",
)
BRITISH = (
    "Thank you very much.",
    "Shall we have another cup of tea?",
    "The weather forecast promises rain, wind, and perhaps a little sun.",
    "Our daughter learned to read before she was 5.",
    "One, two, three, four, five, six, seven, eight, nine, ten.",
    "The castle stands on a hill above the river.",
    "Please mind the gap.",
    "He laughed so hard that his glasses fell into the bath.",
    "Doctor Grey will see you at half past 4, in room 16.",
    "How far is it from here to the coast?",
    "An honest answer is worth more than a clever one.",
    "There were 48 chairs in the hall, and every one of them was taken.",
    "Books, maps, letters, and photographs covered the whole table.",
    "The orchestra tuned, the lights went down, and the curtain rose at last.",
    "Yes, of course.",
    "Measure the length, the width, and the height of the box.",
    "My favourite colour is the deep blue of the evening sky.",
    "What a lovely surprise!",
    "The village baker starts his work at 3 in the morning, while everybody else is still asleep, and by "
    "sunrise the smell of warm bread has reached every street.",
    "Nothing travels faster than light, except perhaps bad news.",
    "Would you rather travel by boat, by train, or on foot?",
    "The children were singing, jumping, and shouting with joy.",
)
HELD_OUT = (
    "Good evening.",
    "The lazy fox walked across the quiet village.",
    "Would you tell me the price of the blue chairs?",
    "Nobody fixed the old train before noon.",
    "He bought 7 lemons and 2 maps.",
)
"""Never trained on: whether the voice survives them is reported, not claimed."""

VOICES = {"en-us": AMERICAN, "en-gb": BRITISH}
RECORDED = (0, 4, 9, 22, 30, 39)
"""Places (in the order of `VOICES`) of the sentences that the checkpoint's test holds to its records."""
