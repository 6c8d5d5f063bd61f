using Drover.Benchmarks;

// dotnet run -c Release --project bench/Drover.Benchmarks [-- FOLDER [ROUNDS]]
string folder = args.Length > 0 ? args[0] : Path.GetTempPath();
int rounds = args.Length > 1 ? int.Parse(args[1], System.Globalization.CultureInfo.InvariantCulture) : 3;
await new SqliteBenchmark(folder).RunAsync(rounds);
