"""The vocabulary of tiny models: words of the made-up shop."""

# 40 words, so that a tiny BERT has a tiny vocabulary.
WORDS = (
    "sofa couch grey blue table lamp oak desk chair bed red green cover leg 1 2 3 18 v volt drill "
    "saw tap sink pot pan mug cup rug shelf door knob hinge bolt screw nail glue paint brush"
).split()
# The most frequent other words of the shop's texts: raydistill rejects a tokenizer without them.
SHOP_WORDS = (
    "- , 0 5 . 4 6 for inch 8 7 9 screws ft wood pack white replacement by air water door fits w "
    "driver mirror / b wall compatible with bottle dark picture glass stand frame brass silver "
    "impact black of skillet year warranty battery purifier fry snow cu coffee stool watt cleaner "
    "head basket lid metallic iron x and extension tv fridge freezer stainless steel best power "
    "size outdoor yellow deck screw handle home office foot s lights bar deep ladder mini bank "
    "laundry heater kitchen frying count chandelier cheap hoover charger navy full computer chrome "
    "hanging chain bench step orange frames set easy couches thermostat timber portable toilet "
    "self hinges string hose drinking durable upgraded machine ounce l shaped hot compact display "
    "washer flat model blender shower floating bronze maker modern cord refrigerator fan fennwick "
    "skarholt vorlandis nortavik tamberline fjordalen juniva wexmoor veltrona bolderby rusthaven "
    "quarrelock grenwhistle mondrava umbriva galdrix ambervane pellmarsh dextaro quendle corvessa "
    "zorandi onyx kestwold solvanti hollowmere rivenhall pouch case heavy duty gas round small "
    "large king queen cotton glossy matte gold beige walnut bathroom bedroom garden paper storage"
).split()
VOCABULARY = list(dict.fromkeys([*WORDS, *SHOP_WORDS]))
