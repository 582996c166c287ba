@pytest.mark.parametrize("name", ["beta", "floor", "warmup", "n_tasks", "interval"])
@pytest.mark.parametrize("digits", [400, 6000])
def test_numbers_beyond_all_floats_are_one_line(name: str, digits: int) -> None:
    with pytest.raises(InputError, match=name):
        GabaSpec(**{name: 10**digits})
