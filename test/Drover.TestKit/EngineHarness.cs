using Drover.Workflows;
using Drover.Workflows.Sqlite;
using Microsoft.Extensions.Logging.Abstractions;

namespace Drover.TestKit;

/// <summary>One database and any number of engines on it.</summary>
public sealed class EngineHarness : IAsyncDisposable
{
    private readonly TempFolder _folder = new();
    private readonly List<WorkflowEngine> _engines = [];

    public string DatabasePath => _folder.File("drover.db");

    public string FolderPath => _folder.Path;

    public WorkflowEngineOptions Options(params WorkflowDefinition[] workflows)
    {
        var options = new WorkflowEngineOptions
        {
            Dialect = new SqliteDialect(DatabasePath),
            ApplicationName = "test",
            ApplicationVersion = "v1",
        };
        foreach (WorkflowDefinition workflow in workflows)
            options.AddWorkflow(workflow);
        return options;
    }

    public Task<WorkflowEngine> StartAsync(params WorkflowDefinition[] workflows) => StartAsync(Options(workflows));

    public async Task<WorkflowEngine> StartAsync(WorkflowEngineOptions options)
    {
        var engine = new WorkflowEngine(options, NoServices.Instance, NullLogger<WorkflowEngine>.Instance);
        _engines.Add(engine);
        await engine.StartAsync();
        return engine;
    }

    public async ValueTask DisposeAsync()
    {
        foreach (WorkflowEngine engine in _engines)
            await engine.DisposeAsync();
        _folder.Dispose();
    }

    private sealed class NoServices : IServiceProvider
    {
        public static readonly NoServices Instance = new();

        public object? GetService(Type serviceType) => null;
    }
}
