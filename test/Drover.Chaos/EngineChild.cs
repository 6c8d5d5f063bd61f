using Drover.Workflows;
using Drover.Workflows.Sqlite;
using Microsoft.Extensions.Logging;

namespace Drover.Chaos;

/// <summary>
/// An engine in a process of its own. Every scenario is repeatable: ids are fixed, so that a second run attaches to what the
/// first left. Prints <c>ready EXECUTOR</c>, then one line <c>WORKFLOW RESULT</c> per workflow, then <c>done</c>.
/// </summary>
internal static class EngineChild
{
    public static async Task<int> RunAsync(string database, string ledgerPath, string scenario, string[] args)
    {
        var work = new ChaosWorkflows(new Ledger(ledgerPath));
        var options = new WorkflowEngineOptions
        {
            Dialect = new SqliteDialect(database),
            ApplicationName = "chaos",
            ApplicationVersion = "v1",
            Lease = TimeSpan.FromSeconds(1.5),
        };
        foreach (WorkflowDefinition workflow in work.All)
            options.AddWorkflow(workflow);
        options.AddQueue(ChaosWorkflows.Queue);
        await using var engine = new WorkflowEngine(options, new NoServices(), new StandardErrorLog());
        await engine.StartAsync();
        await work.CreateTableAsync(engine.Client);
        Say($"ready {engine.ExecutorId}");
        switch (scenario)
        {
            case "mix":
                await MixAsync(engine, work, int.Parse(args[0]));
                break;
            case "gates":
                await GatesAsync(engine, work);
                break;
            case "recover":
                Say($"taken {await engine.RecoverExecutorsAsync([args[0]])}");
                await GatesAsync(engine, work);
                break;
            case "other":
                Say($"other {await (await engine.Client.StartAsync(work.Plain, "other")).ResultAsync()}");
                break;
            case "poison":
                Say($"poison {await (await engine.Client.StartAsync(work.Poison, new() { WorkflowId = "poison" })).ResultAsync()}");
                break;
            case "write":
                await WriteAsync(engine, work, args[0], int.Parse(args[1]), int.Parse(args[2]));
                break;
            default:
                Console.Error.WriteLine($"unknown scenario {scenario}");
                return 2;
        }
        Say("done");
        return 0;
    }

    // Waves of 16: every tenth workflow has a receiver that collects the messages of its ten.
    private static async Task MixAsync(WorkflowEngine engine, ChaosWorkflows work, int count)
    {
        foreach (int[] wave in Enumerable.Range(0, count).Chunk(16))
        {
            var handles = new List<WorkflowHandle<string>>();
            foreach (int i in wave.Where(i => i % 10 == 0))
                handles.Add(await engine.Client.StartAsync(work.Receiver, Math.Min(10, count - i) * 2, new() { WorkflowId = $"recv-{i / 10}" }));
            foreach (int i in wave)
            {
                handles.Add(i % 2 == 0
                    ? await engine.Client.StartAsync(work.Mix, 1, new() { WorkflowId = $"mix-{i}" })
                    : await engine.Client.EnqueueAsync(ChaosWorkflows.Queue, work.Mix, 1, new() { WorkflowId = $"mix-{i}" }));
            }
            // Receivers of a wave may wait for messages of the next one.
            foreach (WorkflowHandle<string> handle in handles.Where(h => h.Id.StartsWith("mix", StringComparison.Ordinal)))
                Say($"{handle.Id} {await handle.ResultAsync()}");
        }
        for (int i = 0; i < count; i += 10)
            Say($"recv-{i / 10} {await engine.Client.Handle<string>($"recv-{i / 10}").ResultAsync()}");
    }

    private static async Task GatesAsync(WorkflowEngine engine, ChaosWorkflows work)
    {
        var handles = new List<WorkflowHandle<string>>();
        handles.Add(await engine.Client.StartAsync(work.Sink, new() { WorkflowId = "sink" }));
        foreach (string kind in ChaosWorkflows.Kinds)
            handles.Add(await engine.Client.StartAsync(work.Gate, kind, new() { WorkflowId = $"gate-{kind}" }));
        await engine.Client.SendAsync("gate-receive", "hello", "t", "hello");
        foreach (WorkflowHandle<string> handle in handles)
            Say($"{handle.Id} {await handle.ResultAsync()}");
        Say($"lost {engine.Lost.IsCancellationRequested}");
        if (Environment.GetEnvironmentVariable("CHAOS_AWAIT_LOST") == "1")
        {
            var lost = new TaskCompletionSource();
            await using CancellationTokenRegistration registration = engine.Lost.Register(lost.SetResult);
            await lost.Task.WaitAsync(TimeSpan.FromSeconds(60));
            try
            {
                await engine.Client.StartAsync(work.Plain, "late", new() { WorkflowId = "late" });
                Say("late accepted");
            }
            catch (DroverException e)
            {
                Say($"late {e.Code}");
            }
        }
    }

    // Many threads, each with its own workflows: no lock error may reach anybody.
    private static async Task WriteAsync(WorkflowEngine engine, ChaosWorkflows work, string prefix, int threads, int each)
    {
        await Task.WhenAll(Enumerable.Range(0, threads).Select(t => Task.Run(async () =>
        {
            for (int i = 0; i < each; i++)
                await (await engine.Client.StartAsync(work.Short, 5, new() { WorkflowId = $"{prefix}-{t}-{i}" })).ResultAsync();
        })));
    }

    private static void Say(string line)
    {
        lock (Console.Out)
        {
            Console.Out.WriteLine(line);
            Console.Out.Flush();
        }
    }

    private sealed class NoServices : IServiceProvider
    {
        public object? GetService(Type serviceType) => null;
    }

    private sealed class StandardErrorLog : ILogger<WorkflowEngine>
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Warning;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            Console.Error.WriteLine($"{logLevel} {formatter(state, exception)} {exception}");
    }
}
