namespace Drover.Workflows.Storage;

/// <summary>A numbered series of migrations that belongs to one part of Drover.</summary>
/// <param name="Component">The part's name, the key in the version table: <c>engine</c>, <c>orchestrator</c>, …</param>
/// <param name="Scripts">SQL texts in canonical form; the n-th brings the component to version n. Statements are separated by a line holding only <c>;;</c>.</param>
public sealed record MigrationSet(string Component, IReadOnlyList<string> Scripts);

/// <summary>
/// Brings a database to the version this program knows. All components move in one transaction, so a crash leaves
/// either version; a database newer than the program is refused unchanged.
/// </summary>
internal static class Migrator
{
    private const string VersionTable = """
        CREATE TABLE IF NOT EXISTS {d}migrations (
            component TEXT NOT NULL PRIMARY KEY,
            version BIGINT NOT NULL)
        """;

    /// <summary>The version that is recorded for a component; 0 when none is.</summary>
    public static long VersionOf(SqlSession session, string component) =>
        session.Number("SELECT version FROM {d}migrations WHERE component = @component", ("@component", component));

    /// <summary>Applies what is missing. Runs inside the caller's transaction.</summary>
    public static void Apply(SqlSession session, IEnumerable<MigrationSet> sets)
    {
        session.Execute(VersionTable);
        foreach (MigrationSet set in sets)
        {
            long found = VersionOf(session, set.Component);
            if (found > set.Scripts.Count)
            {
                throw new DroverException(ErrorCode.Database,
                    $"the database {session.Dialect.Location} has {set.Component} version {found}, this program knows {set.Scripts.Count}: install the newer drover");
            }
            for (int version = (int)found; version < set.Scripts.Count; version++)
            {
                foreach (string statement in set.Scripts[version].Split("\n;;", StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
                    session.Execute(statement);
            }
            if (found < set.Scripts.Count)
            {
                session.Execute("""
                    INSERT INTO {d}migrations (component, version) VALUES (@component, @version)
                    ON CONFLICT (component) DO UPDATE SET version = excluded.version
                    """, ("@component", set.Component), ("@version", (long)set.Scripts.Count));
            }
        }
    }
}
