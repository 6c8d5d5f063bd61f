using Drover.Workflows.Sqlite;

namespace Drover.Workflows;

/// <summary>Chooses SQLite.</summary>
public static class SqliteOptionsExtensions
{
    /// <summary>Keeps everything in one file, created if missing.</summary>
    public static WorkflowEngineOptions UseSqlite(this WorkflowEngineOptions options, string path)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Dialect = new SqliteDialect(path);
        return options;
    }
}
